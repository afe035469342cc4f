"""What a flight looks like: entities, views, services, and the transforms that offline and online share."""
