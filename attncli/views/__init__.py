"""Results as text for people. Views compute nothing but what stands on the page; Rich is imported here alone."""
