"""Reviews together with other projects' machinery, one module each."""
