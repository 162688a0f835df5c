"""The network that says which pixels of the lower face something else covers."""
