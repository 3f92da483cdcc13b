"""What a fitted network tells of images besides their labels: where it looks, what is alike, which labels are odd."""
