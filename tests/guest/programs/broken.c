/* Does not compile. */
int main(void)
{
	return never_declared;
}
