"""The processes behind the job kinds: Ray actors that compute, and the runners that drive them."""
