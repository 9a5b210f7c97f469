"""What functions printed: stored in segments, found again, shown with FC's own lines."""
