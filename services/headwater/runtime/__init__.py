"""The loops: deciding, performing, projecting."""
