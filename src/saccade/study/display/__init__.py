"""What people see of a run while it works: lines, a live display in terminals and notebooks."""
