"""Where and how a network is computed: device, precision, memory format, compilation."""
