"""A trained model as a service: events in, recommendations out."""
