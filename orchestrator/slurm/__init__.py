"""Workers as SLURM jobs: what is asked for, the script that runs, who watches and removes them."""
