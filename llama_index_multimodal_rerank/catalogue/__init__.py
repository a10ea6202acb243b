"""What a shop does with hits before they are shown or reranked: one of each product, no picture twice."""
