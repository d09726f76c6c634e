"""The course as learners meet it: exercises, help with them, and how far a learner has come."""
