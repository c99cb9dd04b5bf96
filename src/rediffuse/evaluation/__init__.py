"""How good an answer is: protocol, metrics, intervals, and the page that shows them."""
