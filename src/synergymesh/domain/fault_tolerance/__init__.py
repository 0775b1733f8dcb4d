"""What follows when an attempt fails: retries, circuit breakers, retry budgets."""
