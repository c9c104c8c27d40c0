"""Which latents carry a label: ranked, shown in context, switched, attributed, and their family."""
