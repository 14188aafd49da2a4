"""End-to-end encryption, as far as a server has part in it: keys, device lists, messages from device to device."""
