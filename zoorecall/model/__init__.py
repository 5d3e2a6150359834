"""What is trained: blocks, the model of them, packs of such models, and what one costs."""
