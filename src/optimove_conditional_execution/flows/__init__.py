"""Multi-step processes as generators: they yield effects and are sent the answers, so they do no IO themselves."""
