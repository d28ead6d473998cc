"""Other people's key formats, read strictly and written as their own programs write them."""
