"""What a push sets in motion: the gates of CI, the deploys of CD, and what both tell people."""
