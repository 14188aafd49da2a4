"""What other servers ask of this one."""
