"""What is made of a run for people to read: progress, tables, pictures."""
