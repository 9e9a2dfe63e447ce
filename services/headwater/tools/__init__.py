"""Tools: the effector that runs an app's tools."""
