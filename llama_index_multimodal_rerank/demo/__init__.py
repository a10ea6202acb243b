"""The offline demo: a catalogue that is drawn, and two tiny checkpoints that were trained on such drawings."""
