"""End-to-end encryption: the bot's device, other people's devices, and the keys of rooms. By vodozemac."""
