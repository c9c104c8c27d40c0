"""What would run where: devices, memory, placement, hours."""
