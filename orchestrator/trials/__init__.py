"""Who works on a trial: the desk that hands it out, leases, checkpoints, artefacts."""
