"""Plain text work that needs no model: words, sentences, overlap, scores. English and Chinese alike."""
