"""What every stage that reads topics does: poll, hand over, checkpoint, rebalance."""
