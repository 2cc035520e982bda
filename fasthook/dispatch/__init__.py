"""4. Delivery → handler → Outcome."""
