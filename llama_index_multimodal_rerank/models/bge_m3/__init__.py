"""BGE-M3's lexical weights: one number for each token of a text, by FlagEmbedding or natively."""
