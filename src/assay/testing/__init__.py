"""Problems with known answers and the contract of an attack, to be run on your own attacks too."""
