"""Read images from folders, archives, downloads, tables, arrays and Hugging Face datasets."""
