"""`headrace bench`: from flags to a load, and from its records to what is shown."""
