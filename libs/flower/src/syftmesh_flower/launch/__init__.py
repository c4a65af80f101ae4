"""Programs that run inside the sandbox beside a Flower app; they know Flower and nothing else of ours."""
