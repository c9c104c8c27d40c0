"""Style embeddings: texts or attribute vectors into a space in which groups of authors separate."""
