"""The prover: opens every escrowed key again and again, and logs which can be given back."""
