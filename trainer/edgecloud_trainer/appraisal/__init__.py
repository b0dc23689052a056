"""A trained or converted model held against labelled images: how often it is right, how sure it is, where it errs."""
