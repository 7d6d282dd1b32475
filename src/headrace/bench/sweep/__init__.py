"""The highest rate that meets the targets, and with what confidence."""
