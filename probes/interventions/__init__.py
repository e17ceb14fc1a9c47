"""What happens when a direction is intervened upon: candidates scored, completions steered, trials judged."""
