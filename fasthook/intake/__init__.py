"""2. Request → Delivery, or Rejection. No I/O and no clock: the time is an argument."""
