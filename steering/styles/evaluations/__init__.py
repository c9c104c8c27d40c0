"""What a finished style embedding is good for beyond the data that it was tuned on.

One file a test. Importing the package imports no torch.
"""
