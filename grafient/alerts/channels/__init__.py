"""Where alerts are sent: what each kind of channel asks for, how a message is written for it, and how it gets there."""
