"""The verdict: the evidence ladder, and the causal step that stands at its top."""
