"""The escrow worker: takes signed escrow statements off the queue and commits them before it acknowledges."""
