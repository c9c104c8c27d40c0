"""Working sweeps off on this machine: Ray, drivers, and who watches over them."""
