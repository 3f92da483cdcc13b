"""Where images come from: folders, archives, downloads, tables, arrays, Hugging Face data sets."""
