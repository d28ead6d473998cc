"""The restore drill: can records be opened from a backup of the database and the sealing keys alone?"""
