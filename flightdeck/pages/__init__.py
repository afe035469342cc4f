"""Pages for people, one self-contained HTML file each: what the lab and the kubectl plugin show alike."""
