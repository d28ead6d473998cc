"""The audit: logs read as files or over the queue, and judged from the root key alone."""
